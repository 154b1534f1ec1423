"""Documents that name attacks to test for, what they require, and what releasing a model means.

All are facts in our own words, each with how it was read.
"""

from __future__ import annotations

from typing import NamedTuple


class Document(NamedTuple):
    """One document.

    `date`: of the document. `says`: pairs of a statement and how it was read.
    """

    title: str
    date: str
    says: tuple[tuple[str, str], ...]


# how a statement was read
PRIMARY = "read in the document itself"
HEADNOTES = "read in the headnotes or the headline of the document"
SECOND = "known from what others say of the document"
INFERRED = "a conclusion of findnemo's authors, not in the document"

SOURCES = (
    Document(
        "EU Code of Practice for general-purpose AI, copyright chapter, Measure 1.4",
        "2025-07-10",
        (
            ("Safeguards in proportion against outputs that reproduce protected works.", SECOND),
            ("Terms of use forbid such uses; open-source models warn in the documents.", SECOND),
            ("It names no test and no threshold.", SECOND),
            ("An audit shows whether a safeguard works.", INFERRED),
        ),
    ),
    Document(
        "EDPB Opinion 28/2024 on AI models and personal data",
        "2024-12-17",
        (
            (
                "Paragraph 43: personal data must be insignificantly likely to come out, by"
                " extraction or by queries.",
                SECOND,
            ),
            ("Paragraph 46: how a model is released sets how deeply it is tested.", SECOND),
            (
                "Paragraph 55: scope, frequency, quantity and quality of tests count; a result"
                " counts only for the attacks that were tried, among them attribute and membership"
                " inference, exfiltration, regurgitation, inversion and reconstruction.",
                SECOND,
            ),
            (
                "Paragraphs 57 and 58: documents tell who tested, when and how, the results, and"
                " the risk that is left.",
                SECOND,
            ),
        ),
    ),
    Document(
        "NIST AI 600-1, generative AI profile",
        "2024-07",
        (
            (
                "MS-2.10-001: red-team for training samples that come out, reverse engineering,"
                " model extraction and membership inference.",
                PRIMARY,
            ),
            ("MS-2.10-003: verify that training data are deduplicated.", PRIMARY),
            ("MS-2.7-007: red-team against the same family of attacks.", PRIMARY),
            ("MS-2.13-001: tell the error of the metrics.", PRIMARY),
            ("MS-1.1-009: say what was not measured, and why.", PRIMARY),
            ("MS-2.5-001: do not extrapolate beyond what was tested.", PRIMARY),
        ),
    ),
    Document(
        "CNIL, project PANAME",
        "2025-06-26",
        (
            (
                "An open library for audits of the confidentiality of models is to be made in 18"
                " months; a list of its tests was not found.",
                PRIMARY,
            ),
            ("A sheet of 2025-07-22 asks for attack tests and their documentation.", HEADNOTES),
        ),
    ),
    Document(
        "GEMA v OpenAI, 42 O 14139/24",
        "2025-11-11",
        (
            (
                "Margin numbers 168 to 173: outputs of simple prompts, set beside the work, prove"
                " memorization.",
                HEADNOTES,
            ),
            ("Margin number 181: memorization is reproduction.", HEADNOTES),
            ("Margin numbers 275 to 277: for simple prompts the operator is liable.", HEADNOTES),
            ("The judgment is not final.", SECOND),
        ),
    ),
    Document(
        "Getty Images v Stability AI, [2025] EWHC 2863 (Ch)",
        "2025-11-04",
        (
            (
                "Paragraph 558: near-identical outputs are possible; duplicates in the training"
                " data are the main cause.",
                PRIMARY,
            ),
            ("Paragraph 559: none was shown for the works in suit.", PRIMARY),
            ("Paragraph 600: the weights store no copy.", PRIMARY),
            ("An appeal was permitted on 2025-12-16.", SECOND),
        ),
    ),
)

RELEASES = {
    "weights": (
        "The weights are given away: whoever has them can try every attack, with gradients, without"
        " a limit on tries, and can train the model further."
    ),
    "api": (
        "Users send prompts and get images: attacks by prompts are open to them, those that need"
        " weights or gradients are not, as long as the weights stay with the operator."
    ),
    "internal": (
        "The model is used inside one organization: its people can do what their access allows,"
        " which findnemo does not know."
    ),
}
UNDECLARED = (
    "Not declared: the reader does not learn which attacks are open to whom. `findnemo report RUN"
    " --evidence --release weights|api|internal` declares it."
)
