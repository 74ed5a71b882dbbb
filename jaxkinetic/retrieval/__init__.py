"""What is observed: the decoder, the retrieval profile and its shape."""

from jaxkinetic.retrieval.decoder import decode, hard_accuracy, soft_accuracy, soft_accuracy_fourier
from jaxkinetic.retrieval.profile import RetrievalProfile, UShape, retrieval_profile, u_shape

__all__ = [
    "RetrievalProfile",
    "UShape",
    "decode",
    "hard_accuracy",
    "retrieval_profile",
    "soft_accuracy",
    "soft_accuracy_fourier",
    "u_shape",
]
