"""Draw an exported detector's boxes: onnx_demo.py NETWORK PICTURE RESULT."""

import json
import sys

import cv2
import numpy as np
import onnxruntime

network, picture, result = sys.argv[1:]
session = onnxruntime.InferenceSession(network)
about = session.get_modelmeta().custom_metadata_map['mmmobilemamba']
size, classes = map(json.loads(about).get, ('size', 'classes'))
image = cv2.imread(picture)
scaled = cv2.resize(image, size[::-1]) if size else image  # None: any size
pixels = scaled.transpose(2, 0, 1)[None]  # uint8, by --preprocess
found = session.run(['boxes', 'scores', 'labels'], {'image': pixels})
scale = np.divide(image.shape[1::-1], scaled.shape[1::-1])
for box, score, label in zip(*(values[0] for values in found)):
    if label >= 0 and score >= 0.3:
        corners = (box.reshape(2, 2) * scale).astype(int).tolist()
        text = f'{classes[label] if classes else label} {score:.2f}'
        cv2.rectangle(image, *corners, (0, 200, 0), 2)
        cv2.putText(image, text, corners[0], 0, 0.5, (0, 0, 255))
cv2.imwrite(result, image)
