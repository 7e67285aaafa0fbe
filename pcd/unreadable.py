"""Images that training met and could not read: named once, counted, and too many of them an error."""

import math

from torch import Tensor

from pcd.distributed import gather_objects
from pcd.errors import PCDError
from pcd.image_sources import ImageSource

__all__ = ["UnreadableImages"]


class UnreadableImages:
    """Judges the share of a pool that cannot be read while training walks through it.

    It is too large as soon as that is certain (more than `max_share` of the whole pool), or all but certain: at least
    ten images, and four standard deviations more than `max_share` of the images met so far. So a few damaged files
    at the start of a large pool stop nothing, and a wrong mount does within its first steps. A pool may have
    `max_share` of its images damaged, and none of any pool where that is 0.
    """

    def __init__(self, max_share: float, source: ImageSource) -> None:
        self.max_share = max_share
        self.source = source
        self.met: set[int] = set()
        """Numbers of the unreadable images."""
        self.seen = 0
        """Samples that this process was told of."""

    def note(self, unreadable: Tensor) -> None:
        """Print the name of each image that is met for the first time.

        Args:
            unreadable: (B,) of a TwoViewBatch. An image that another one's replacement skips, too, comes up in a batch
                of its own within the epoch.

        Raises:
            PCDError: too large a share of the images cannot be read.
        """
        self.seen += len(unreadable)
        new = {index for index in unreadable.tolist() if index >= 0} - self.met
        for index in sorted(new):
            print(f"cannot read image {self.source.name(index)}; the next one is seen in its place", flush=True)
        self.met |= new
        if new:
            self._judge(self.source.name(max(new)))

    def on_all_ranks(self) -> list[int]:
        """Numbers of the unreadable images that any rank met. All ranks have to ask."""
        return sorted(set().union(*gather_objects(self.met)))

    def _judge(self, latest: str) -> None:
        images = len(self.source)
        met = min(self.seen, images)
        allowed = self.max_share * met
        surely = len(self.met) > self.max_share * images
        almost = len(self.met) >= 10 and len(self.met) > allowed + 4 * math.sqrt(allowed)
        if surely or almost:
            raise PCDError(
                f"cannot read {len(self.met)} of {met} images, the latest {latest}; "
                f"mend the pool or raise max_unreadable_share above {self.max_share:g}"
            )
