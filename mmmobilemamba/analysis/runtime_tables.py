"""What the benchmark's tables of runtimes compare, by name."""

from ..deploy import RUNTIMES
from ..deploy.scan import chunk_of

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
    # Turns in another process cost a pause.
    *(
        f'{name},runtime={runtime}'
        for runtime in RUNTIMES
        for name in RUNTIME_MODELS
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

# The gated scans of the stages, by channels: of T2 at 192 pixels, S6 at 224,
# B1 at 256 and 384, SSDLite at 320 and a detector at 800x1280.
SCAN_MAPS = (
    ('scan:224@3', 9),
    ('scan:272@4', 16),
    ('scan:192@6', 36),
    ('scan:272@7', 49),
    ('scan:256@8', 64),
    ('scan:112@12', 144),
    ('scan:160@14', 196),
    ('scan:160@16', 256),
    ('scan:160@20', 400),
    ('scan:160@24', 576),
    ('scan:160@32', 1024),
    ('scan:160@50x80', 4000),
)
_CHUNKS = (4, 8, 16, 32)


def _scan_forms(tokens: int) -> tuple[str, ...]:
    """Return all forms; that of an export is there under two names.

    What is told apart of the two is what the measuring cannot tell.
    """
    chunks = sorted({n for n in _CHUNKS if n < tokens} | {chunk_of(tokens)})
    forms = (f'scan=chunked,chunk={n}' for n in chunks)
    return (*forms, 'scan=doubling', 'scan=scan')


SCAN_MODELS = tuple(
    f'{name}{form},runtime={runtime}'
    for name, tokens in SCAN_MAPS
    for runtime in RUNTIMES
    for form in ('', *(f',{form}' for form in _scan_forms(tokens)))
)
SCAN_PAIRS = tuple(
    (f'{name},{form},runtime={runtime}', f'{name},runtime={runtime}')
    for name, tokens in SCAN_MAPS
    for runtime in RUNTIMES
    for form in _scan_forms(tokens)
)
