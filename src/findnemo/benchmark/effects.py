"""What an answer does to a model of a suite: to the pictures of a caption, and to captions that are to stay what they are."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from findnemo import demo
from findnemo.benchmark.methods import Answer
from findnemo.images import generate_many
from findnemo.models import Model
from findnemo.passes import Rows
from findnemo.scores import SIMILARITIES
from findnemo.seeds import FRESH
from findnemo.settings import Settings
from findnemo.verification import finished, fresh, nearest, same_seed_of_memory

PICTURES = 8  # ordinary captions whose pictures are judged


class Effects:
    """On fresh seeds. `ordinary`: captions that are to stay what they are, as many as are looked at."""

    def __init__(self, model: Model, settings: Settings, ordinary: Sequence[str]):
        self.model = model
        self.settings = settings
        self.ordinary = list(ordinary)
        self.judges = demo.judges()
        rows = [(caption, FRESH) for caption in ordinary]
        self._rows = Rows(model, rows, settings, model.encode(list(ordinary)))
        self._before = self._rows.deltas()

    def same_seed(self, caption: str, answer: Answer, tau: float) -> float:
        """Largest same-seed similarity of the caption's noise differences; of all seeds where none replicates."""
        probe = fresh(self.model, caption, self.settings)
        before = probe.deltas()
        with answer.applied(self.model):
            after = probe.deltas()
        return round(same_seed_of_memory(before, after, self.settings, tau), 4)

    def copies(
        self, caption: str, pictures: Sequence[Image.Image], answer: Answer, images: int
    ) -> list[float]:
        """Descriptor similarity of finished images to the training picture, of several to the nearest: one value an image."""
        assert self.judges.descriptor is not None
        edit = answer.applied(self.model)
        made = finished(self.model, caption, images, demo.image_settings(), edit)
        return [round(float(s), 4) for s in nearest(made, pictures, self.judges.descriptor)]

    def kept(self, answer: Answer) -> float:
        """Mean same-seed similarity of the ordinary captions' noise differences, 1 where nothing changes."""
        with answer.applied(self.model):
            after = self._rows.deltas()
        return round(
            float(SIMILARITIES[self.settings.similarity](self._before, after, 1).mean()), 4
        )

    def alignment(self, answer: Answer) -> float:
        """Mean cosine of picture and caption (the demo's CLIP) over the first ordinary captions."""
        assert self.judges.alignment is not None
        captions = self.ordinary[:PICTURES]
        with answer.applied(self.model):
            images = generate_many(
                self.model, [(c, FRESH) for c in captions], demo.image_settings(), PICTURES
            )
        return round(float(self.judges.alignment(images, captions).mean()), 4)
