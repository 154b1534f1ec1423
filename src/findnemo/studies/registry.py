"""The registry of studies: what each shows of the paper, what it needs, and where it is made.

Nothing heavy is imported: the command line reads this before PyTorch is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from findnemo.errors import InputError


@dataclass(frozen=True)
class Need:
    """Something that a study works on.

    `least`: the smallest number that is enough. `source`: where it comes from.
    """

    label: str
    least: int
    source: str


NEEDS: dict[str, Need] = {
    "neurons": Need(
        "captions with neurons", 1, "`findnemo audit` or `findnemo localize` finds them"
    ),
    "neurons off": Need(
        "captions with neurons off", 1, "`findnemo audit` switches them off where images are copies"
    ),
    "types": Need(
        "captions with the type of a memory", 1, "a column `type` (VM, TM) in the table of captions"
    ),
    "others": Need("captions that are not memorized", 2, "--unrelated FILE, or those under tau"),
    "ordinary": Need("captions known not to be memorized", 2, "--unrelated FILE"),
    "hold-out scores": Need(
        "hold-out scores", 2, "`findnemo calibrate --prompts`: imported statistics have none"
    ),
    "training images": Need(
        "training images of captions", 1, "a column of images in the table of captions"
    ),
    "reference pictures": Need(
        "real pictures", 2, "--reference DIR, else images of the untouched model stand there"
    ),
    "descriptor": Need("copy descriptor (SSCD)", 1, "--descriptor FILE of `findnemo audit`"),
    "CLIP": Need("CLIP", 1, "--clip"),
}


WORK = {  # kinds of computation of a study, besides reading the run; the most expensive last
    "first step": "noise differences of captions, 10 to 20 U-Net evaluations each",
    "search": "a new search for neurons, 50 to 500 U-Net evaluations a caption",
    "images": (
        "finished images, for each caption and setting images x steps U-Net evaluations (twice that"
        " with guidance)"
    ),
}


@dataclass(frozen=True)
class StudyEntry:
    """A study by its name (`make`).

    `shows`: what it shows of the paper, empty if the paper does not have it. `home`: its module
    here, with a function of its name. `needs`: keys of NEEDS that it cannot do without. `uses`:
    keys of NEEDS without which a part is left out. `work`: what it computes, keys of WORK; results
    are kept in the run.
    """

    name: str
    shows: str
    title: str
    home: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    work: tuple[str, ...] = ()

    @property
    def pictured(self) -> bool:
        """Whether it is about finished images; its page then states their settings."""
        return "images" in self.work

    @property
    def heading(self) -> str:
        return f"{self.shows}: {self.title}" if self.shows else self.title.capitalize()

    def lacks(self, stock: Mapping[str, int], keys: tuple[str, ...]) -> list[str]:
        """The `keys` of which there are too few. `stock`: key -> how many there are."""
        return [key for key in keys if stock[key] < NEEDS[key].least]


_JUDGED = ("descriptor", "training images", "CLIP")
_STEP = ("first step",)
_SEARCH = ("search",)
_IMAGES = ("images",)
_ENTRIES = (  # in the order of the paper with its appendix; then studies that it does not have
    StudyEntry(
        "fig2a", "Figure 2a, appendix B.4", "memorization scores", "fig2",
        (), ("types", "ordinary", "hold-out scores"), _STEP,
    ),
    StudyEntry(
        "fig2b", "Figure 2b", "activations in the first value layer", "fig2",
        ("neurons", "others"), (), _STEP,
    ),
    StudyEntry(
        "table1", "Table 1", "mitigations", "table1",
        ("neurons",), _JUDGED, (*_SEARCH, *_IMAGES),
    ),
    StudyEntry(
        "fig4", "Figure 4", "neurons per prompt and layer", "fig4", ("neurons",), (), _SEARCH
    ),
    StudyEntry(
        "fig5a", "Figures 5a and 8", "quality", "fig5",
        (), ("reference pictures", "others", "neurons", "descriptor", "CLIP"), _IMAGES,
    ),
    StudyEntry("fig5b", "Figure 5b", "scaling factor", "fig5", ("neurons",), _JUDGED, _IMAGES),
    StudyEntry("table2", "Table 2", "time per algorithm", "table2", ("neurons",), (), _SEARCH),
    StudyEntry("table3", "Table 3", "disentanglement", "table3", ("neurons", "others"), (), _STEP),
    StudyEntry(
        "fig6", "Figure 6", "similarity to the training image, types", "fig6",
        ("descriptor", "training images"), ("types",), _IMAGES,
    ),
    StudyEntry(
        "fig7", "Figure 7", "neurons before and after refinement", "fig4",
        ("neurons",), (), _SEARCH,
    ),
    StudyEntry(
        "table4", "Table 4", "ablations", "table4",
        ("neurons",), ("ordinary", "hold-out scores", *_JUDGED), (*_SEARCH, *_IMAGES),
    ),
    StudyEntry(
        "fig9", "Figure 9, appendix C.4", "highly memorized captions", "fig9",
        ("neurons", "descriptor", "training images"), (), (*_SEARCH, *_IMAGES),
    ),
    StudyEntry("fig10", "Figures 10 to 12", "shared neurons", "fig10", ("neurons",), (), _IMAGES),
    StudyEntry(
        "fig13", "Figure 13", "noise differences", "fig13", ("neurons",), ("others",), _STEP
    ),
    StudyEntry("fig14", "Figures 14 and 15", "thresholds", "fig14", ("neurons",), (), _STEP),
    StudyEntry(
        "fig16", "Figures 16 to 19", "whole layers off", "fig16", ("neurons",), _JUDGED, _IMAGES
    ),
    StudyEntry(
        "fig20", "Figure 20", "convolutional channels off", "fig16",
        ("neurons", "others"), _JUDGED, _IMAGES,
    ),
    StudyEntry("stability", "", "stability of what is found", "stability", ("neurons",), (), _SEARCH),
    StudyEntry(
        "utility", "", "utility: captions that are not memorized", "utility",
        ("neurons off", "others"), ("descriptor", "CLIP"), _IMAGES,
    ),
)  # fmt: skip
STUDIES: dict[str, StudyEntry] = {entry.name: entry for entry in _ENTRIES}


def requested_studies(names: Iterable[str]) -> list[str]:
    """Names of the requested studies; "all" requests every study.

    Raises InputError for an unknown name, with the nearest known one.

    >>> requested_studies(["table3", "fig4"])
    ['table3', 'fig4']
    """
    wanted = list(names)
    if wanted == ["all"]:
        return list(STUDIES)
    return [known(name).name for name in wanted]


def known(name: str) -> StudyEntry:
    """The study of a name. Raises InputError for an unknown one, with the nearest that is known.

    >>> known("table3").title
    'disentanglement'
    """
    if name not in STUDIES:
        near = get_close_matches(name, STUDIES, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"study {name!r} is not known: use all, {', '.join(STUDIES)}{hint}")
    return STUDIES[name]
