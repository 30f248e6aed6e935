"""The published way to read features, as benchmarks/extraction.py compares it with ours."""

PUBLISHED_BATCH = 4


class Published:
    """The published way over one detector: hooks on the modules whose outputs are the layers."""

    def __init__(self, detector, layers, folder, size, device):
        self.detector, self.layers, self.folder, self.size, self.device = (
            detector,
            layers,
            folder,
            size,
            device,
        )
        self.maps = {}
        self.handles = []
        module = detector.module
        if hasattr(module, "transform"):
            module.transform.min_size, module.transform.max_size = (size,), 2 * size
            from models_store.archs.common import BodyWalk  # noqa: PLC0415

            walker = BodyWalk(module.backbone.body)
            for stage in walker.stages:
                self._keep(walker.steps[stage.index], f"backbone.{stage.name}")
            names = detector.face.neck.names
            self.handles.append(
                module.backbone.fpn.register_forward_hook(
                    lambda _, __, out: self.maps.update(zip(names, out.values(), strict=True))
                )
            )
        else:
            body = module.model.backbone.model
            body.also = tuple(stage.name for stage in body.stages)
            self.handles.append(body.register_forward_hook(self._stages))
            self.handles.append(module.model.encoder.register_forward_hook(self._memory, with_kwargs=True))

    def _keep(self, module, name):
        self.handles.append(module.register_forward_hook(lambda _, __, out: self.maps.update({name: out})))

    def _stages(self, body, _, __):
        self.maps |= {f"backbone.{name}": x for name, x in body.remembered.items()}

    def _memory(self, _, __, kwargs, output):
        from models_store.detr.maps import memory_maps  # noqa: PLC0415

        found = memory_maps(output, kwargs["spatial_shapes_list"])
        self.maps |= {f"encoder.memory.l{index}": x for index, x in enumerate(found)}

    def close(self):
        for handle in self.handles:
            handle.remove()
        if not hasattr(self.detector.module, "transform"):
            self.detector.module.model.backbone.model.also = ()

    def run(self, dataset, images):
        import numpy as np  # noqa: PLC0415
        import PIL.Image  # noqa: PLC0415
        import torch  # noqa: PLC0415
        from torchvision.ops import roi_align  # noqa: PLC0415

        detr = not hasattr(self.detector.module, "transform")
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        for number in range(0, len(images), PUBLISHED_BATCH):
            batch, boxes = [], []
            for image in images[number : number + PUBLISHED_BATCH]:
                picture = PIL.Image.open(image.path).convert("RGB").resize((self.size, self.size))
                tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
                batch.append(((tensor - mean) / std if detr else tensor).to(self.device))
                own = dataset.boxes[dataset.annotation_image_ids == image.id] * (self.size / image.width)
                boxes.append(torch.tensor(own, dtype=torch.float32, device=self.device))
            with torch.no_grad():
                if detr:
                    stacked = torch.stack(batch)
                    self.detector.module(stacked, torch.ones_like(stacked[:, 0], dtype=torch.long))
                else:
                    self.detector.module(batch)
                for name in self.layers:
                    x = self.maps[name]
                    local = roi_align(x, boxes, 7, x.shape[-1] / self.size, 2, False).mean((2, 3))
                    whole = x.mean((2, 3)).repeat_interleave(
                        torch.tensor([len(b) for b in boxes]).to(x.device), 0
                    )
                    for level, values in (("local", local), ("global", whole)):
                        path = self.folder / f"{name}-{level}"
                        path.mkdir(exist_ok=True)
                        torch.save(values.cpu(), path / f"{number}.pt")
