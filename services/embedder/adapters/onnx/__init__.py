"""Models run in this process by ONNX Runtime."""
