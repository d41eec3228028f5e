"""A few-shot classifier as a scikit-learn estimator, its files, its inputs, its calibration."""
