"""The published teachers as data, by the family of their method.

Files were not opened: addresses, hashes and tensor names come from the code and the pages that `source` names, and
each entry lists what has not been seen in the file itself.
"""

from pcd.teachers.published.clustering import CLUSTERING
from pcd.teachers.published.contrastive import CONTRASTIVE
from pcd.teachers.published.negative_free import NEGATIVE_FREE
from pcd.teachers.published.supervised import SUPERVISED

__all__ = ["PUBLISHED"]

PUBLISHED = (*CONTRASTIVE, *NEGATIVE_FREE, *CLUSTERING, *SUPERVISED)
