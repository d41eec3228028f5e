"""A fitted classifier outside Python: one ONNX file, or one page that classifies without a network."""

from metagvae.classifier.page.network import WholeClassifier, write_onnx
from metagvae.classifier.page.write import write_page

__all__ = ["WholeClassifier", "write_onnx", "write_page"]
