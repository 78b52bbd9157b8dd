"""Small dialogs of the HU widget: a cutoff of one's own, what the file does not say, about."""

from __future__ import annotations

from typing import Any

import spineimg
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)
from spineimg.cutoffs import LEE_2024
from spineimg.volume import Acquisition, Sharpness

from napari_spineimg import __version__

KEYS = (
    ("Alt+1 … Alt+4", "window: bone, soft tissue, metal, full"),
    ("Click", "crosshair; with “Click bodies” on, measures the level"),
    ("Shift+E", "adjust ellipses: drag, resize, turn"),
    ("Shift+B", "back to clicking bodies"),
    ("Shift+Up, Shift+Down", "move the ellipse in hand by one slice"),
    ("Alt+Z, Alt+Y", "undo, redo"),
    ("Ctrl+E", "next of axial, sagittal, coronal in the viewer"),
    ("Left, Right, wheel in a plane", "scroll"),
)


def keys_text() -> str:
    return "\n".join(f"{key}: {what}" for key, what in KEYS)


class _Form(QDialog):
    def __init__(self, title: str, remark: str, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        words = QLabel(remark)
        words.setWordWrap(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(words)
        layout.addLayout(self.form)
        layout.addWidget(buttons)

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """As high as its words need at their size."""
        width = max(420, 45 * self.fontMetrics().averageCharWidth())
        layout = self.layout()
        if layout is not None:
            layout.activate()
            self.resize(width, max(layout.totalHeightForWidth(width), self.sizeHint().height()))
        super().showEvent(event)


class CutoffDialog(_Form):
    """A cutoff for the LIV with its source. `published` is chosen when both fields are as published."""

    def __init__(self, value_hu: float, source: str, parent: QWidget | None = None) -> None:
        super().__init__(
            "Cutoff for the LIV",
            f"Published: {LEE_2024.value_hu:g} HU ({LEE_2024.citation}). Another value needs a source, which the flag, "
            "the table and every export then name.",
            parent,
        )
        self.value = QDoubleSpinBox()
        self.value.setDecimals(3)
        self.value.setRange(-200.0, 1000.0)
        self.value.setValue(value_hu)
        self.value.setToolTip("A LIV whose HU lies below this is flagged")
        self.source = QLineEdit(source)
        self.source.setToolTip("The paper or the registry that the value comes from")
        self.form.addRow("Cutoff, HU", self.value)
        self.form.addRow("Source", self.source)

    @property
    def published(self) -> bool:
        return self.source.text().strip() == LEE_2024.source and abs(self.value.value() - LEE_2024.value_hu) < 5e-4

    @property
    def complaint(self) -> str:
        """What is missing; "" when nothing is."""
        if not self.source.text().strip():
            return "a cutoff needs its source"
        if self.source.text().strip() == LEE_2024.source and not self.published:
            return f"{LEE_2024.source} gives {LEE_2024.value_hu:g} HU: name the source of the other value"
        return ""


class StatedDialog(_Form):
    """What the reader knows and the file does not say."""

    def __init__(self, known: Acquisition, parent: QWidget | None = None) -> None:
        super().__init__(
            "State the acquisition",
            "Only what the file does not say can be stated; the result lists it as stated, not read.",
            parent,
        )
        self.kvp, self.contrast, self.kernel = QComboBox(), QComboBox(), QComboBox()
        self.kvp.addItem("unknown", None)
        for kvp in (80.0, 100.0, 120.0, 140.0):
            self.kvp.addItem(f"{kvp:g} kVp", kvp)
        for words, given in (("unknown", None), ("no contrast agent", False), ("contrast agent given", True)):
            self.contrast.addItem(words, given)
        for words, sharpness in (("unknown", None), ("soft", "soft"), ("sharp", "sharp")):
            self.kernel.addItem(words, sharpness)
        for name, box, value in (
            ("Tube voltage", self.kvp, known.kvp),
            ("Contrast", self.contrast, known.contrast),
            ("Kernel", self.kernel, known.kernel),
        ):
            box.setToolTip("Can be stated, since the file does not say" if value is None else "As the file says")
            box.setEnabled(value is None)
            if value is not None:
                box.addItem(f"{_said(value)} (from the file)")
                box.setCurrentIndex(box.count() - 1)
            self.form.addRow(name, box)

    @property
    def stated(self) -> Acquisition:
        kernel = self.kernel.currentData() if self.kernel.isEnabled() else None
        return Acquisition(
            kvp=self.kvp.currentData() if self.kvp.isEnabled() else None,
            contrast=self.contrast.currentData() if self.contrast.isEnabled() else None,
            kernel=kernel,
            sharpness=Sharpness(kernel) if kernel is not None else None,
        )


def _said(value: float | bool | str) -> str:
    if isinstance(value, bool):
        return "contrast agent given" if value else "no contrast agent"
    return value if isinstance(value, str) else f"{value:g} kVp"


def about_text() -> str:
    """Version, purpose and papers."""
    return (
        f"spineimg {spineimg.__version__}, napari-spineimg {__version__}\n\n"
        "Research use only, not a medical device.\n\n"
        "Vertebral HU: Schreiber et al. 2011, J Bone Joint Surg Am 93:1057.\n"
        f"Cutoff of the LIV: {LEE_2024.citation}.\n"
        "Loosening: Sandén et al. 2004; Nam et al. 2025. Failure scale: Silva et al. 2021.\n"
        "Agreement: Bland & Altman 1999; Shrout & Fleiss 1979."
    )


def show_about(parent: QWidget) -> None:
    """The about box."""
    box = QMessageBox(parent)
    box.setWindowTitle("About spineimg")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(about_text())
    box.exec()
    box.deleteLater()
