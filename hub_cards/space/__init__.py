"""The demo Space: a Gradio app over the pipeline, and the folder that a Space runs."""
