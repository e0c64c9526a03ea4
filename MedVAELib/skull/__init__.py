"""A fetal skull in 3D from whichever standard planes there are, with its uncertainty."""
