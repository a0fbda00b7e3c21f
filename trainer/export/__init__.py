"""Export a trained model to ONNX, torch.export or safetensors."""
