import subprocess
import sys


def test_the_package_and_its_kernels_are_imported_without_torch():
    program = (
        "import sys, kdplatform; from kdplatform import kernels; "
        "assert 'torch' not in sys.modules; "
        "assert kdplatform.kd_loss is kernels.kd_loss; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
