"""Arrays on CUDA devices, and host arrays sent there. Nothing of CUDA is imported before the first such call."""
