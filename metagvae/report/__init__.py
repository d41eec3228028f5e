"""One HTML file about a run, or comparing several: each section is a file here and a template of the same name."""

from metagvae.report.write import write_report

__all__ = ["write_report"]
