"""Labelled sets in the layouts that they are published in, each brought to COCO's format; read without torch."""
