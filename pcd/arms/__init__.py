"""How a backbone comes to be: PCD, its ablations, the methods it is compared with, and backbones made elsewhere.

To add an arm that is pre-trained: its objective in a file of its own here (see pcd.objective), and one entry in
pcd.arms.registry. Importing this package imports no torch.
"""

from pcd.arms.registry import ARMS, Arm, Option, options_of

__all__ = ["ARMS", "Arm", "Option", "options_of"]
