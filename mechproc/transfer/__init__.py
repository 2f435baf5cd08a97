"""Transfer: fresh models assembled from parts of trained ones."""

from mechproc.transfer.arms import arm as arm
from mechproc.transfer.arms import attention_only as attention_only
from mechproc.transfer.arms import body as body
from mechproc.transfer.arms import composition as composition
from mechproc.transfer.arms import fresh as fresh
from mechproc.transfer.arms import full as full
from mechproc.transfer.arms import mlp_only as mlp_only
from mechproc.transfer.arms import part as part
from mechproc.transfer.arms import permuted as permuted
from mechproc.transfer.perturb import Noise as Noise
from mechproc.transfer.perturb import NormMatchedNoise as NormMatchedNoise
from mechproc.transfer.perturb import Permute as Permute
from mechproc.transfer.perturb import Perturbation as Perturbation
from mechproc.transfer.perturb import Spectrum as Spectrum
from mechproc.transfer.recipe import RECIPE_VERSION as RECIPE_VERSION
from mechproc.transfer.recipe import Recipe as Recipe
from mechproc.transfer.recipe import assemble as assemble
from mechproc.transfer.recipe import check as check
from mechproc.transfer.recipe import frozen as frozen
