"""What a figure was measured on."""

import platform

from app.inference.processors import available_processors


def describe_hardware() -> str:
    """The devices that TensorFlow computes on, in words."""
    import tensorflow as tf  # a benchmark's client is better off without it

    gpus = [
        str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if gpus:
        return ", ".join(gpus)
    return f"{available_processors()} CPU cores ({platform.machine()})"
