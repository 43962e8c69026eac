"""Draw what an exported network finds: onnx_demo.py NETWORK IMAGE RESULT."""

import json
import sys

import cv2
import numpy as np
import onnxruntime

if len(sys.argv) != 4:
    sys.exit(__doc__)
network, source, result = sys.argv[1:]
try:
    session = onnxruntime.InferenceSession(network)
    stored = session.get_modelmeta().custom_metadata_map
    about = json.loads(stored.get('mmmobilemamba', '{}'))
except Exception as error:
    sys.exit(f'{network} cannot be used: {error}')
image = cv2.imread(source)
if image is None:
    sys.exit(f'{source} is no image that OpenCV reads')
fits = about.get('preprocess') and about['kind'] != 'backbone'
if not fits or about['channels'] != 3:
    sys.exit(f'{network}: export a network of RGB images with --preprocess')
size, names = about['size'], about['classes'] or range(10000)
scaled = cv2.resize(image, size[::-1]) if size else image  # None: any size
found = session.run(None, {'image': scaled.transpose(2, 0, 1)[None]})
if about['kind'] == 'segmentor':  # logits, one map per class
    logits, least = found[0][0], about['threshold']
    if len(logits) == 1:  # of the objects, beside what is none
        logits = np.insert(logits, 0, np.log(least / (1 - least)), axis=0)
    labels = logits.argmax(0).astype(np.uint8)
    labels = cv2.resize(labels, image.shape[1::-1], interpolation=0)
    colours = np.random.default_rng(0).integers(256, size=(256, 3))
    colours = np.array(about['palette'] or colours)[labels][..., ::-1]
    image = (image / 2 + colours / 2).astype(np.uint8)
elif about['kind'] == 'detector':  # boxes, scores, labels
    scale = np.divide(image.shape[1::-1], scaled.shape[1::-1])
    for box, score, label in zip(*(values[0] for values in found[:3])):
        if label >= 0 and score >= 0.3:
            corners = (box.reshape(2, 2) * scale).astype(int).tolist()
            cv2.rectangle(image, *corners, (0, 200, 0), 2)
            text = f'{names[label]} {score:.2f}'
            cv2.putText(image, text, corners[0], 0, 0.5, (0, 0, 255))
else:  # scores of the classes
    best = int(found[0][0].argmax())
    text = f'{names[best]} {found[0][0][best]:.2f}'
    cv2.putText(image, text, (5, 20), 0, 0.5, (0, 0, 255))
if not cv2.haveImageWriter(result) or not cv2.imwrite(result, image):
    sys.exit(f'{result} cannot be written')
print(f'Drawn: {result}')
