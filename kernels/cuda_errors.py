"""What the CUDA driver raises, or its twin; a module of its own since it needs neither of them."""


class CudaError(Exception):
    """A call of the CUDA driver failed: ``name`` is CUDA's name of the failure, ``text`` says what it means."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name, self.text = name, text

    @property
    def out_of_memory(self) -> bool:
        return self.name == "CUDA_ERROR_OUT_OF_MEMORY"
