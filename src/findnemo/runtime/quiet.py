"""The libraries' own progress bars and advice, kept off the terminal."""


def quiet_libraries() -> None:
    """Keep the libraries' own progress bars and advice off the terminal."""
    import os
    import warnings

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
