"""The race: imgcls, what else people serve images with, and what the hardware could do at most."""
