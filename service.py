"""What `bentoml serve` loads: the service, by name."""

import sys
from pathlib import Path

# `bentoml serve imgcls:latest` takes the tag for a module first, and so imports whatever `imgcls`
# is installed; what is served from a bento must be the bento's own code.
_own = Path(__file__).resolve().parent / "imgcls"
_loaded = sys.modules.get("imgcls")
if _loaded and _own.is_dir() and Path(str(_loaded.__file__)).resolve().parent != _own:
    for _name in [name for name in sys.modules if name.partition(".")[0] == "imgcls"]:
        del sys.modules[_name]

from imgcls.service import ImageClassifier  # noqa: E402

__all__ = ["ImageClassifier"]
