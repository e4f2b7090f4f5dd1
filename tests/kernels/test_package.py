import subprocess
import sys


def test_the_package_offers_kd_loss_without_importing_torch_first():
    program = (
        "import sys, kdplatform; assert 'torch' not in sys.modules; "
        "kdplatform.kd_loss; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
