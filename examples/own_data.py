"""Your own data, network and loss: wines told apart by 13 chemical measurements. Run it again to resume it."""

import sys

import torch
from sklearn.datasets import load_wine

import firstspike as fs


class Margin(torch.nn.Module):
    """The true neuron should spike at least ``margin`` before all others."""

    def __init__(self, margin: float = 0.5):
        super().__init__()
        self.margin = margin

    def forward(self, times, labels):
        times = times.clamp(max=10.0)  # a silent neuron counts as a late one
        lead = times - times.gather(1, labels[:, None])
        return (self.margin - lead).clamp(min=0).sum(dim=1).mean()


folder = sys.argv[1] if len(sys.argv) > 1 else "runs/wine"
wine = load_wine()
data = fs.data.split(wine.data, wine.target, encode={"late": 1.5}, class_names=wine.target_names, seed=1)

torch.manual_seed(0)
net = fs.Network(
    fs.LIFLinear(data.train.features, 30, fs.LIF(tau_mem=2.0), trainable=["tau_mem"]),
    fs.Delay(30),
    fs.LIFLinear(30, 20),
    fs.LIFLinear(20, 3),
)
loss = fs.losses.TimeCrossEntropy(xi=0.1) if "--cross-entropy" in sys.argv else Margin()
optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
trainer = fs.Trainer(net, loss, optimizer)
trainer.fit(data.train, data.validation, test=data.test, epochs=60, batch_size=16, folder=folder, resume=True)
print(f"test accuracy {100 * trainer.evaluate(data.test).accuracy:.1f} %")
