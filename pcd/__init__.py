"""Pixel-Wise Contrastive Distillation (arXiv 2211.00218): the method, free of any orchestration."""
