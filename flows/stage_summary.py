"""What is said, in half a line, of a stage that has finished."""

from typing import Any

from flows.planning.stages import Stage

__all__ = ["stage_summary"]


def stage_summary(stage: Stage, result: dict[str, Any]) -> str:
    """Of its result.json; it follows the stage's name."""
    match stage.kind:
        case "teacher":
            return (
                f": {result['parameters'] / 1e6:.1f} M parameters, SHA-256 {result['sha256'][:12]}, {result['licence']}"
            )
        case "data":
            pool = [f"{result['pool']} images to pre-train on"] if result["pool"] else []
            labelled = [f"{result['train']} + {result['val']} labelled"] if result["train"] else []
            return f": {', '.join(pool + labelled)}"
        case "pretrain":
            damaged = f", {result['unreadable_images']} images could not be read" if result["unreadable_images"] else ""
            return f": {result['steps']} steps in {result['precision']}, the loss by {result['loss_backend']}{damaged}"
        case "watch":
            return f": {len(result['curve'])} snapshots evaluated"
        case "backbone":
            return f": {result['matched_tensors']} tensors of {result['source']}, {result['licence']}"
        case "finetune":
            box, mask = (result["metrics"].get(name) for name in ("bbox/AP", "segm/AP"))
            matched, difference = result["matched_tensors"], result["feature_difference"]
            proof = f"{matched} backbone tensors matched, features equal to {difference:.0e}"
            return f": box AP {_or_dash(box)}, mask AP {_or_dash(mask)} ({proof})"
        case "features":
            images, silent = result["train"] + result["val"], result["constant_channels"]
            told = f", {silent} of them constant" if silent else ""
            return f": {images} images, {result['channels']} channels{told}"
        case "probe":
            figures = ((name.replace("_", " "), value) for name, value in result["metrics"].items())
            return ": " + ", ".join(f"{name} {_or_dash(value)}" for name, value in figures)
        case _:
            return ""


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
