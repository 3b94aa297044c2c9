"""The routes of the hook API: `table` lists them, the modules beside it translate each into one gRPC call."""
