"""Fitted numbers as attributes of a fit."""


class FittedValues:
    """A fit whose parameters, and quantities where it has them, are attributes: ``fit.beta``."""

    def __getattr__(self, name: str) -> float:
        for numbers in ("values", "quantities"):
            found = self.__dict__.get(numbers, {})
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __dir__(self) -> list[str]:
        # What notebooks complete, and what Python suggests for a misspelt name.
        return [*super().__dir__(), *self.__dict__.get("values", {}), *self.__dict__.get("quantities", {})]
