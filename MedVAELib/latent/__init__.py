"""Latent spaces of image autoencoders: training them on images, and looking into what they learned."""
