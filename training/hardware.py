"""What a figure was measured on."""

import os
import platform


def describe_hardware() -> str:
    """The devices that TensorFlow computes on, in words."""
    import tensorflow as tf  # a benchmark's client is better off without it

    gpus = [
        str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    if gpus:
        return ", ".join(gpus)
    return f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()})"
