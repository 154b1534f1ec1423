"""Read a table of captions: CSV, Parquet, JSON, JSON Lines or plain text, from a file, standard
input or memory.

    table = read_prompts("captions.csv")
    for prompt in table.limit(100):
        print(prompt.row, prompt.text)

    for prompt in stream_prompts("millions.parquet"):  # a few thousand in memory at a time, repeated captions and all
        print(prompt.row, prompt.text)

The content of a file decides its format; its suffix decides only if several are possible. A caption
is kept verbatim, because one changed character can be enough to hide a memory. Only surrounding
whitespace and NUL, which belongs to no text, are removed. Other control characters stay.

May be imported: the names below and the modules without an underscore. May import: files and errors.
"""

from findnemo.prompts._columns import CAPTION_COLUMNS, IMAGE_COLUMNS, TYPE_COLUMNS
from findnemo.prompts._formats import DELIMITERS
from findnemo.prompts._reading import read_prompts, stream_prompts
from findnemo.prompts._table import Prompt, PromptStream, PromptTable, repeated
from findnemo.prompts.ordinary import ordinary
from findnemo.prompts.training import TrainingPicture, TrainingSet, read_training

__all__ = [
    "CAPTION_COLUMNS",
    "DELIMITERS",
    "IMAGE_COLUMNS",
    "TYPE_COLUMNS",
    "Prompt",
    "PromptStream",
    "PromptTable",
    "TrainingPicture",
    "TrainingSet",
    "ordinary",
    "read_prompts",
    "read_training",
    "repeated",
    "stream_prompts",
]
