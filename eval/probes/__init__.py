"""What frozen features are worth: probes on a labelled set of classes, on features that are computed once."""
