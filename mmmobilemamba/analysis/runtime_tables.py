"""What the benchmark's tables of runtimes compare, by name."""

from ..deploy import RUNTIMES

# B1 in every way there is, first fused with PyTorch's operators alone, then
# all sizes and their peers, exported the same way.
PLAIN_B1 = 'mobilemamba:b1@256,backend=parallel,pack=no'
RUNTIME_MODELS = (
    'mobilemamba:b1@256',
    'mobilemamba:t2@192',
    'mobilemamba:t4@192',
    'mobilemamba:s6@224',
    'mobilemamba:b2@384',
    'mobilemamba:b4@512',
    'timm:efficientvit_m4@224',
    'timm:efficientvit_m5@224',
    'timm:shvit_s4@256',
    'timm:mambaout_femto@224',
)
DEPLOY_MODELS = (
    PLAIN_B1,
    'mobilemamba:b1@256',
    'mobilemamba:b1@256,compile=default',
    *(
        f'{name},runtime={runtime}'
        for name in RUNTIME_MODELS
        for runtime in RUNTIMES
    ),
)
DEPLOY_PAIRS = (
    ('mobilemamba:b1@256', PLAIN_B1),
    ('mobilemamba:b1@256,compile=default', PLAIN_B1),
    *(
        (f'{one},runtime={runtime}', f'{other},runtime={runtime}')
        for one, other in (
            ('mobilemamba:b1@256', 'timm:efficientvit_m5@224'),
            ('mobilemamba:t2@192', 'timm:efficientvit_m4@224'),
            ('mobilemamba:s6@224', 'timm:efficientvit_m5@224'),
            ('mobilemamba:b1@256', 'timm:shvit_s4@256'),
            ('mobilemamba:b1@256', 'timm:mambaout_femto@224'),
        )
        for runtime in RUNTIMES
    ),
    *(
        (f'mobilemamba:b1@256,runtime={runtime}', PLAIN_B1)
        for runtime in RUNTIMES
    ),
)

# The gated scans of the stages of T2, S6, B1 and B4, and of a detector.
SCAN_MAPS = (
    'scan:224@3',
    'scan:272@4',
    'scan:192@6',
    'scan:272@7',
    'scan:256@8',
    'scan:112@12',
    'scan:160@14',
    'scan:160@16',
    'scan:256@16',
    'scan:160@32',
    'scan:160@50x84',
)
SCAN_FORMS = (
    'scan=chunked,chunk=4',
    'scan=chunked,chunk=8',
    'scan=chunked,chunk=16',
    'scan=chunked,chunk=32',
    'scan=doubling',
    'scan=scan',
)
SCAN_MODELS = tuple(
    f'{name}{form},runtime={runtime}'
    for name in SCAN_MAPS
    for runtime in RUNTIMES
    for form in ('', *(f',{form}' for form in SCAN_FORMS))
)
SCAN_PAIRS = tuple(
    (f'{name},{form},runtime={runtime}', f'{name},runtime={runtime}')
    for name in SCAN_MAPS
    for runtime in RUNTIMES
    for form in SCAN_FORMS
)
