"""Files and folders: reading images of every format with what is wrong with them told, writing whole files or none."""
