"""The catalogue: NPUs, links, models, prices, use cases and more, one file each.

Every item is data with its source and date; adding one is adding a file. Names
are the files' stems; aliases name the spellings that people and benchmarks use.
"""

from problems.catalogue.files import (
    Quote as Quote,
)
from problems.catalogue.files import (
    canonical as canonical,
)
from problems.catalogue.files import (
    chunk_tokens_under as chunk_tokens_under,
)
from problems.catalogue.files import (
    efficiency_file as efficiency_file,
)
from problems.catalogue.files import (
    framework_file as framework_file,
)
from problems.catalogue.files import (
    link_file as link_file,
)
from problems.catalogue.files import (
    load_model as load_model,
)
from problems.catalogue.files import (
    load_quotes as load_quotes,
)
from problems.catalogue.files import (
    model_file as model_file,
)
from problems.catalogue.files import (
    model_path as model_path,
)
from problems.catalogue.files import (
    names as names,
)
from problems.catalogue.files import (
    npu_file as npu_file,
)
from problems.catalogue.files import (
    raw as raw,
)
from problems.catalogue.files import (
    trace_file as trace_file,
)
from problems.catalogue.files import (
    use_case_file as use_case_file,
)
from problems.catalogue.hardware import (
    DEFAULT_FRAMEWORK as DEFAULT_FRAMEWORK,
)
from problems.catalogue.hardware import (
    load_fabric as load_fabric,
)
from problems.catalogue.hardware import (
    load_npu as load_npu,
)
from problems.catalogue.hardware import (
    load_npu_as as load_npu_as,
)
from problems.catalogue.hardware import (
    load_npu_under as load_npu_under,
)
