"""The profiling kit: packages of blocks and networks, and the Swift sources of the runner that measures them."""
