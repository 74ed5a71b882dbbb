"""What is observed: the decoder, the retrieval profile and its shape."""

from jaxkinetic.retrieval.decoder import decode, hard_accuracy, soft_accuracy, soft_accuracy_fourier
from jaxkinetic.retrieval.estimate import ProfileEstimate, estimate_profile
from jaxkinetic.retrieval.law_profile import RetrievalProfile, law_profile, uniform_codeword_correction
from jaxkinetic.retrieval.profile import retrieval_profile
from jaxkinetic.retrieval.u_shape import UShape, u_shape
from jaxkinetic.retrieval.window_means import WindowMeans, window_means

__all__ = [
    "ProfileEstimate",
    "RetrievalProfile",
    "UShape",
    "WindowMeans",
    "decode",
    "estimate_profile",
    "hard_accuracy",
    "law_profile",
    "retrieval_profile",
    "soft_accuracy",
    "soft_accuracy_fourier",
    "u_shape",
    "uniform_codeword_correction",
    "window_means",
]
