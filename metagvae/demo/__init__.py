"""The demo page: draw characters, move latent units, play episodes. One file per tab, its logic free of gradio."""
