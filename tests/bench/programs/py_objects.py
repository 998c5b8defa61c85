"""Classes, generators, closures and exceptions: a small machine of tasks that send each other messages."""
import heapq


class Task:
    def __init__(self, name, weight):
        self.name, self.weight, self.inbox, self.seen = name, weight, [], 0

    def run(self, others):
        while True:
            try:
                message = self.inbox.pop()
            except IndexError:
                yield None
                continue
            self.seen = (self.seen * 31 + message.value) % 1000003
            target = others[(self.seen + self.weight) % len(others)]
            yield lambda: target.take(Message(self, self.seen % 97))

    def take(self, message):
        self.inbox.append(message)


class Message:
    __slots__ = ("sender", "value")

    def __init__(self, sender, value):
        self.sender, self.value = sender, value


tasks = [Task(f"t{n}", n * 7 + 1) for n in range(40)]
runs = [t.run(tasks) for t in tasks]
for n, t in enumerate(tasks):
    t.take(Message(None, n))
queue = [(n, n) for n in range(len(tasks))]
heapq.heapify(queue)
for _ in range(60000):
    when, n = heapq.heappop(queue)
    act = next(runs[n])
    if act:
        act()
    heapq.heappush(queue, (when + tasks[n].weight, n))
print([(t.name, t.seen, len(t.inbox)) for t in tasks])
