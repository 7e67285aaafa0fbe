"""What a backbone is worth: data sets, Detectron2 fine-tuning, AP tables and figures.

The folder's name shadows a builtin: always `from eval.x import y`, never `import eval`.
"""
