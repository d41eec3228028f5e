"""The training loops: pretraining of a GuidedVAE, episodic training of a learner."""
