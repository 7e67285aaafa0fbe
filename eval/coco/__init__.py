"""What detections are worth on a set in COCO format: figures, their chance, and what went wrong."""
