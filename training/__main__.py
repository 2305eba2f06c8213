"""`python -m training`."""

import os

# TensorFlow uses oneDNN by default only on processors with instructions for neural networks;
# on the others, too, gradients take well under half the time with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from training.cli import app  # noqa: E402  TensorFlow reads its environment when it is imported

if __name__ == "__main__":
    app()
