"""Public weights as Hugging Face lays them out: config.json, *.safetensors, tokenizer.json.

They come from strangers: nothing in them is run, and what is wrong with them is one line.
"""
