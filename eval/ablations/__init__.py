"""The paper's ablation tables and figures from folders of results: its numbers beside ours."""
