"""What makes an upstream the one it is: hashes of weights and files, and its hidden states."""
